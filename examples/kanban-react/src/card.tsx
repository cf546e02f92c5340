// One card: its handle and its title, and the rest once it is open.

import type { KeyboardEvent, PointerEvent } from 'react';
import type { Step } from './cards.ts';
import type { Deeds } from './deeds.ts';
import { type Card, useLive, useMutate } from './doctype.ts';
import type { Drag, Drop } from './drag.ts';
import { TextForm } from './text-form.tsx';

const DATE = new Intl.DateTimeFormat(undefined, { dateStyle: 'medium', timeStyle: 'short' });

interface CardProps {
  card: Card;
  isOpen: boolean;
  drag: Drag | null;
  steps: readonly Step[];
  onOpen: () => void;
  onGrab: (event: PointerEvent) => void;
  onMove: (to: Drop) => void;
  onRemove: () => void;
  carryOut: Deeds['carryOut'];
}

export function CardItem(props: CardProps) {
  const { card, isOpen, drag, steps, onOpen, onGrab, onMove } = props;
  const { id, title, comments } = card;
  const by = drag?.id === id ? drag.by : undefined;
  const onKey = (event: KeyboardEvent) => {
    const step = steps.find(({ key }) => key === event.key);
    if (step) event.preventDefault();
    if (step?.to) onMove(step.to);
  };
  return (
    <li
      className={by ? 'card dragged' : drag?.drop?.aheadOf === id ? 'card drop' : 'card'}
      style={by && { translate: `${by[0]}px ${by[1]}px` }}
      data-card={id}
      data-testid="card"
    >
      <div className="head">
        <button
          id={`${id}-handle`}
          className="handle"
          type="button"
          data-testid="handle"
          aria-label={`Move “${title}”`}
          aria-describedby="keys"
          onKeyDown={onKey}
          onPointerDown={onGrab}
        />
        <button
          id={`${id}-title`}
          className="title"
          type="button"
          data-testid="card-title"
          aria-expanded={isOpen}
          onClick={onOpen}
          onPointerDown={onGrab}
        >
          {title}
        </button>
        {comments > 0 && (
          <span className="count" data-testid="comment-count">
            {comments}
            <span className="visually-hidden"> {comments === 1 ? 'comment' : 'comments'}</span>
          </span>
        )}
      </div>
      {isOpen && <Details {...props} />}
    </li>
  );
}

function Details({ card: { id, title }, steps, onMove, onRemove, carryOut }: CardProps) {
  const { rename, comment, withdraw } = useMutate();
  const { rows } = useLive<{ id: string; text: string; at: number }>(
    'select id, text, at from comment where card = ? order by at, id',
    [id],
  );
  const saveTitle = (text: string) =>
    carryOut({
      said: `Renamed “${title}” to “${text}”`,
      issue: () => rename({ id, title: text }),
      inverse: () => rename({ id, title, was: text }),
    });
  const saveComment = (text: string) => {
    const added = crypto.randomUUID();
    return carryOut({
      said: `Commented on “${title}”`,
      issue: () => comment({ comment: added, id, text }),
      inverse: () => withdraw({ comment: added }),
    });
  };
  return (
    <div className="details">
      <TextForm
        label={`Title of “${title}”`}
        button="Save"
        value={title}
        testId="rename-input"
        onSave={saveTitle}
      />
      <div className="bar">
        {steps.map(({ key, sign, label, to }) => (
          <button
            key={key}
            id={`${id}-${key}`}
            className="icon"
            type="button"
            title={label}
            aria-label={label}
            aria-disabled={!to}
            data-testid={key}
            onClick={() => to && onMove(to)}
          >
            {sign}
          </button>
        ))}
        <button className="plain" type="button" data-testid="remove" onClick={onRemove}>
          Remove
        </button>
      </div>
      <ul className="comments" aria-label={`Comments on “${title}”`}>
        {rows.map((it) => (
          <li key={it.id} data-testid="comment">
            {it.text} <time dateTime={new Date(it.at).toISOString()}>{DATE.format(it.at)}</time>
          </li>
        ))}
      </ul>
      <TextForm
        label={`New comment on “${title}”`}
        button="Comment"
        testId="comment-input"
        onSave={saveComment}
      />
    </div>
  );
}
