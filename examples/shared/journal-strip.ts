// The newest end of a journal as a row of cells, one an LSN, coloured by how far it has come. A
// cell keeps its element while it moves to the left, so its colour fades from stage to stage.

import { h } from './dom.ts';

const CELLS_MAX = 48;

/** Everything before `until` that no earlier mark covers is at this stage. */
export interface Mark {
  name: 'decided' | 'acked' | 'durable' | 'visible';
  until: number;
}

export class JournalStrip {
  readonly #cells = h('div', { class: 'cells', 'aria-hidden': 'true' });
  readonly #legend = h('div', { class: 'legend' });
  readonly element: HTMLElement;
  readonly #shown = new Map<number, HTMLElement>();

  constructor(title: string, testId: string) {
    this.element = h(
      'div',
      { class: 'strip', 'data-testid': `strip-${testId}` },
      h('h2', null, title),
      this.#cells,
      this.#legend,
    );
  }

  show(marks: readonly Mark[], head: number): void {
    const first = Math.max(1, head - CELLS_MAX);
    for (const [lsn, cell] of this.#shown) {
      if (lsn >= first && lsn < head) continue;
      cell.remove();
      this.#shown.delete(lsn);
    }
    for (let lsn = first; lsn < head; lsn++) {
      const stage = marks.find((mark) => lsn < mark.until)?.name ?? 'visible';
      let cell = this.#shown.get(lsn);
      if (!cell) {
        cell = h('span', { class: 'cell', title: `LSN ${lsn}` });
        this.#shown.set(lsn, cell);
        this.#cells.append(cell);
      }
      cell.dataset.stage = stage;
    }
    this.#cells.dataset.empty = String(head <= 1);
    this.#legend.replaceChildren(
      ...marks.map(({ name, until }) =>
        h(
          'span',
          { 'data-stage': name, 'data-testid': `mark-${name}` },
          h('i', { 'aria-hidden': 'true' }),
          `${name} `,
          h('b', null, String(until)),
        ),
      ),
      h('span', { class: 'head' }, 'next ', h('b', null, String(head))),
    );
  }
}
