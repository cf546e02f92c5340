// A field in the place of a text, to change that text.

import { h } from './dom.ts';

export interface InlineEdit {
  /** Gets the field as a child and the class `editing` while it is there. */
  over: HTMLElement;
  value: string;
  /** For those who do not see where the field is. */
  label: string;
  numeric?: boolean;
  /** Called with a text that is new and not empty. */
  save(value: string): void;
  /** Called after the keyboard has ended it, to put the focus back. */
  refocus(): void;
}

/** Opens the field. Enter and leaving it save, Escape does not. */
export function editInline({ over, value, label, numeric, save, refocus }: InlineEdit): void {
  if (over.classList.contains('editing')) return;
  const field = h('input', {
    class: 'field',
    maxlength: 200,
    autocomplete: 'off',
    inputmode: numeric ? 'decimal' : null,
    'aria-label': label,
    'data-testid': 'edit-input',
  });
  field.value = value;
  // Taking the field away makes it lose the focus, which would end it once more.
  let isOpen = true;
  const end = (isSaved: boolean, byKeyboard: boolean) => {
    if (!isOpen) return;
    isOpen = false;
    const text = field.value.trim();
    over.classList.remove('editing');
    field.remove();
    if (byKeyboard) refocus();
    if (isSaved && text && text !== value) save(text);
  };
  field.addEventListener('keydown', (event) => {
    event.stopPropagation();
    if (event.isComposing || (event.key !== 'Enter' && event.key !== 'Escape')) return;
    event.preventDefault();
    end(event.key === 'Enter', true);
  });
  field.addEventListener('blur', () => end(over.isConnected, false));
  over.classList.add('editing');
  over.append(field);
  field.focus();
  field.select();
}
