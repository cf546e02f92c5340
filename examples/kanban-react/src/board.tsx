// The board: its lanes, and what stands above and below them.

import { DocumentBar } from '../../shared/react/document-bar.tsx';
import { useKeptFocus } from '../../shared/react/steps.tsx';
import { TextForm } from '../../shared/react/text-form.tsx';
import { UndoBar } from '../../shared/react/undo.tsx';
import { CardItem } from './card.tsx';
import { type Cards, type Lane, useCards } from './cards.ts';
import { useDocument, useStatus } from './doctype.ts';

export function Board({ name }: { name: string }) {
  const cards = useCards();
  const { rows, error, state } = cards;
  return (
    <main data-testid="app" data-state={state} {...useKeptFocus(rows)}>
      <DocumentBar name={name} db={useDocument()} status={useStatus()} error={error} />
      {rows.length === 0 && !error && (
        <div className="empty" data-testid="empty">
          <h2>{state === 'ready' ? 'An empty board' : 'Looking for cards…'}</h2>
          <p>Write a card into a lane and press Enter. Every tab and device will show it.</p>
        </div>
      )}
      <div className="lanes">
        {cards.lanes.map((lane) => (
          <LaneOfCards key={lane.id} lane={lane} cards={cards} />
        ))}
      </div>
      <footer>
        <UndoBar {...cards.undo} />
        <p id="keys">Drag cards by the dots or the title, or press an arrow key on the dots.</p>
      </footer>
    </main>
  );
}

function LaneOfCards({ lane, cards }: { lane: Lane; cards: Cards }) {
  const { id, title, items } = lane;
  return (
    <section data-testid={id} aria-labelledby={`${id}-name`} {...cards.listMarks(id)}>
      <h2 id={`${id}-name`}>
        {title} <span className="count">{items.length}</span>
      </h2>
      <ul className="cards" aria-labelledby={`${id}-name`}>
        {items.map((card) => (
          <CardItem key={card.id} card={card} cards={cards} />
        ))}
      </ul>
      <TextForm
        id={`${id}-add`}
        label={`New card in ${title}`}
        button="Add"
        onSave={(text) => cards.addTo(lane, text)}
      />
    </section>
  );
}
