// A field and the button that saves it.

import { type SubmitEvent, useState } from 'react';

interface TextFormProps {
  id?: string;
  label: string;
  button: string;
  placeholder?: string;
  /** What is there already. */
  value?: string;
  testId: string;
  /** Says whether it was taken. */
  onSave(text: string): Promise<boolean>;
}

export function TextForm({ value = '', label, button, testId, onSave, ...field }: TextFormProps) {
  const [draft, setDraft] = useState<string>();
  const save = async (event: SubmitEvent) => {
    event.preventDefault();
    const text = (draft ?? value).trim();
    setDraft(undefined);
    if (!text || text === value) return;
    // What was not taken is given back, unless something else is being written by now.
    if (!(await onSave(text))) setDraft((newer) => newer ?? text);
  };
  return (
    <form className="text-form" onSubmit={save}>
      <input
        {...field}
        className="field"
        maxLength={200}
        autoComplete="off"
        aria-label={label}
        data-testid={testId}
        value={draft ?? value}
        onChange={(event) => setDraft(event.target.value)}
      />
      <button className="button" type="submit">
        {button}
      </button>
    </form>
  );
}
