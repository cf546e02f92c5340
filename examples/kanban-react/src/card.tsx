// One card: its handle and its title, and the rest once it is open.

import { onArrow, StepButtons } from '../../shared/react/steps.tsx';
import { TextForm } from '../../shared/react/text-form.tsx';
import type { Card, Cards } from './cards.ts';
import { useLive, useMutate } from './doctype.ts';

const DATE = new Intl.DateTimeFormat(undefined, { dateStyle: 'medium', timeStyle: 'short' });

type CardProps = { card: Card; cards: Cards };

export function CardItem({ card, cards }: CardProps) {
  const { id, title, comments } = card;
  const { drag, grab, openId, setOpenId } = cards;
  const isDragged = drag?.id === id;
  const isOpen = id === openId;
  const mark = isDragged ? 'dragged' : drag?.drop?.aheadOf === id ? 'drop' : '';
  return (
    <li
      className={`card ${mark}`}
      style={isDragged ? { translate: drag.translate } : {}}
      data-item={id}
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
          onKeyDown={(event) => onArrow(event, id, cards.lanes, cards.put)}
          onPointerDown={(event) => grab(id, event)}
        />
        <button
          id={`${id}-title`}
          className="title"
          type="button"
          data-testid="card-title"
          aria-expanded={isOpen}
          onClick={() => setOpenId(isOpen ? undefined : id)}
          onPointerDown={(event) => grab(id, event)}
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
  const { carryOut } = cards.undo;
  const { rows } = useLive<{ id: string; text: string; at: number }>(
    'select id, text, at from comment where card = ? order by at, id',
    [id],
  );
  const remove = () => cards.take(card);
  const saveTitle = (text: string) =>
    carryOut(
      `Renamed “${title}” to “${text}”`,
      () => rename({ id, title: text }),
      () => rename({ id, title, was: text }),
    );
  const saveComment = (text: string) => {
    const added = crypto.randomUUID();
    const issue = () => comment({ comment: added, id, text });
    return carryOut(`Commented on “${title}”`, issue, () => withdraw({ comment: added }));
  };
  return (
    <div className="details">
      <TextForm
        aria-label={`Title of “${title}”`}
        button="Save"
        defaultValue={title}
        data-testid="rename-input"
        onSave={saveTitle}
      />
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
      <TextForm
        aria-label={`New comment on “${title}”`}
        button="Comment"
        data-testid="comment-input"
        onSave={saveComment}
      />
    </div>
  );
}
