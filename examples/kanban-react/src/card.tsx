// One card: its handle and its title, and the rest once it is open.

import type { PointerEvent } from 'react';
import { Handle, StepButtons } from '../../shared/react/steps.tsx';
import { TextForm } from '../../shared/react/text-form.tsx';
import type { Card, Cards } from './cards.ts';
import { useLive, useMutate } from './doctype.ts';

const DATE = new Intl.DateTimeFormat(undefined, { dateStyle: 'medium', timeStyle: 'short' });

type CardProps = { card: Card; cards: Cards };

export function CardItem({ card, cards }: CardProps) {
  const { id, title, comments } = card;
  const { openId, setOpenId, lanes, put } = cards;
  const isOpen = id === openId;
  const grab = (event: PointerEvent) => cards.grab(id, event);
  return (
    <li className="card" data-testid="card" {...cards.itemMarks(id)}>
      <div className="head">
        <Handle id={id} name={title} lists={lanes} put={put} onPointerDown={grab} />
        <button
          id={`${id}-title`}
          className="title"
          type="button"
          data-testid="card-title"
          aria-expanded={isOpen}
          onClick={() => setOpenId(isOpen ? undefined : id)}
          onPointerDown={grab}
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
      {isOpen && <Details card={card} cards={cards} />}
    </li>
  );
}

function Details({ card, cards }: CardProps) {
  const { id, title } = card;
  const { rename, comment, withdraw } = useMutate();
  const { rows } = useLive<{ id: string; text: string; at: number }>(
    'select id, text, at from comment where card = ? order by at, id',
    [id],
  );
  const remove = () => cards.take(card);
  const retitle = (text: string) =>
    cards.undo.carryOut(
      `Renamed “${title}” to “${text}”`,
      () => rename({ id, title: text }),
      () => rename({ id, title, was: text }),
    );
  const addComment = (text: string) => {
    const added = { comment: crypto.randomUUID() };
    const issue = () => comment({ ...added, id, text });
    return cards.undo.carryOut(`Commented on “${title}”`, issue, () => withdraw(added));
  };
  return (
    <div className="details">
      <TextForm label={`Title of “${title}”`} button="Save" defaultValue={title} onSave={retitle} />
      <div className="bar">
        <StepButtons id={id} lists={cards.lanes} put={cards.put} />
        <button className="plain" type="button" data-testid="remove" onClick={remove}>
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
      <TextForm label={`New comment on “${title}”`} button="Comment" onSave={addComment} />
    </div>
  );
}
