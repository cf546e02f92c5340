// The board: what its live query says, and who does what about it.

import { useState } from 'react';
import { alarming } from '../../shared/status.ts';
import { CardItem } from './card.tsx';
import { stepsOf, useCards } from './cards.ts';
import { type Deeds, useDeeds } from './deeds.ts';
import { type Card, LANES, type LaneId, useLive, useStatus } from './doctype.ts';
import { useDrag } from './drag.ts';
import { Rejections } from './rejections.tsx';
import { SyncStatus } from './sync-status.tsx';
import { TextForm } from './text-form.tsx';

const CARDS = `
  select id, title, lane, place,
         (select count(*) from comment where comment.card = card.id) as comments
  from card where removed = 0 order by place`;

export function Board({ name }: { name: string }) {
  const { rows, error, state } = useLive<Card>(CARDS);
  const status = useStatus();
  const deeds = useDeeds();
  const cards = useCards(rows, deeds.carryOut);
  const [openId, setOpenId] = useState<string>();
  const { drag, grab } = useDrag((id, drop) => {
    const card = rows.find((it) => it.id === id);
    if (card) cards.put(card, drop);
  });

  const cardsOf = (lane: LaneId) =>
    cards
      .of(lane)
      .map((card) => (
        <CardItem
          key={card.id}
          card={card}
          isOpen={card.id === openId}
          drag={drag}
          steps={stepsOf(card, cards.of)}
          onOpen={() => setOpenId(card.id === openId ? undefined : card.id)}
          onGrab={(event) => grab(card.id, event)}
          onMove={(to) => cards.put(card, to)}
          onRemove={() => cards.take(card)}
          carryOut={deeds.carryOut}
        />
      ));

  const problem = error ?? (status && alarming(status));
  return (
    <main data-testid="app" data-state={state}>
      <header>
        <h1>{name}</h1>
        <SyncStatus />
      </header>
      {problem && (
        <p className="banner" role="alert" data-testid="error">
          {problem.message}
        </p>
      )}
      <Rejections />
      {rows.length === 0 && !problem && <Empty isKnown={state === 'ready'} />}
      <div className="lanes">
        {LANES.map(({ id: lane, title }) => {
          const isDropEnd = drag?.drop?.lane === lane && !drag.drop.aheadOf;
          return (
            <section
              key={lane}
              data-lane={lane}
              data-testid={lane}
              aria-labelledby={`${lane}-name`}
            >
              <h2 id={`${lane}-name`}>
                {title} <span className="count">{cards.of(lane).length}</span>
              </h2>
              <ul className={isDropEnd ? 'cards drop' : 'cards'} aria-labelledby={`${lane}-name`}>
                {cardsOf(lane)}
              </ul>
              <TextForm
                id={`${lane}-add`}
                label={`New card in ${title}`}
                button="Add"
                placeholder="New card"
                testId={`add-${lane}`}
                onSave={(text) => cards.addTo(lane, text)}
              />
            </section>
          );
        })}
      </div>
      <Footer {...deeds} />
    </main>
  );
}

function Empty({ isKnown }: { isKnown: boolean }) {
  return (
    <div className="empty" data-testid="empty">
      <h2>{isKnown ? 'An empty board' : 'Looking for cards…'}</h2>
      <p>
        Write a card into a lane and press Enter. Every change is written to this device at once,
        shown in every tab that has this board open, and synced when the server can be reached.
      </p>
    </div>
  );
}

function Footer({ said, undo, undoable }: Deeds) {
  return (
    <footer>
      <p role="status" data-testid="said">
        {said}
      </p>
      <button
        className="button"
        type="button"
        data-testid="undo"
        title={undoable ? `Undo: ${undoable.said} (Ctrl Z)` : 'Nothing to undo in this tab'}
        aria-disabled={!undoable}
        onClick={undo}
      >
        Undo
      </button>
      <p id="keys">
        Drag cards by the dots or the title. With the focus on the dots the arrow keys move a card.
      </p>
    </footer>
  );
}
