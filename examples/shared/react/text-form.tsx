// A field and the button that saves it.

import type { ComponentProps, SubmitEvent } from 'react';

interface TextFormProps extends ComponentProps<'input'> {
  /** What is to be written: its name, and what stands in the empty field. */
  label: string;
  button: string;
  /** Says whether it was taken. */
  onSave(text: string): Promise<boolean>;
}

export function TextForm({ label, button, onSave, ...field }: TextFormProps) {
  const save = async (event: SubmitEvent<HTMLFormElement>) => {
    event.preventDefault();
    const form = event.currentTarget;
    const input = form.querySelector('input')!;
    const text = input.value.trim();
    form.reset();
    if (!text || text === input.value) return;
    // What was not taken is given back, unless something else is being written by now.
    if (!(await onSave(text)) && input.value === input.defaultValue) input.value = text;
  };
  return (
    <form className="text-form" onSubmit={save}>
      <input
        className="field"
        aria-label={label}
        placeholder={label}
        maxLength={200}
        autoComplete="off"
        {...field}
      />
      <button className="button" type="submit">
        {button}
      </button>
    </form>
  );
}
