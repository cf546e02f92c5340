// The sync indicator: one word on where the document stands, made from `db.status`.

import type { Database, Status, TidelogError } from 'tidelog';
import { count, h } from './dom.ts';

/** Any open document, as the parts of the page around the data see it. */
export type AnyDatabase = Pick<Database, 'status' | 'on' | 'connect' | 'disconnect'>;

interface Indication {
  /** Chooses the colour. */
  tone: 'calm' | 'busy' | 'away' | 'bad';
  label: string;
  title: string;
}

export class StatusIndicator {
  readonly #dot = h('span', { class: 'dot', 'aria-hidden': 'true' });
  readonly #label = h('span');
  readonly #pill = h(
    'span',
    { class: 'pill', role: 'status', 'data-testid': 'status' },
    this.#dot,
    this.#label,
  );
  readonly #toggle = h('button', {
    class: 'plain',
    type: 'button',
    'data-testid': 'offline-toggle',
    onclick: () => this.toggleConnection(),
  });
  readonly #banner = h('p', { class: 'banner', role: 'alert', hidden: true });
  #db: AnyDatabase | null = null;
  #stop: (() => void) | null = null;

  constructor(bar: HTMLElement, banners: HTMLElement) {
    bar.append(this.#pill, this.#toggle);
    banners.append(this.#banner);
    this.show(null);
  }

  /** Follows `db`, or nothing while none is open. */
  show(db: AnyDatabase | null): void {
    this.#stop?.();
    this.#db = db;
    this.#stop = db?.on('status', (status) => this.#render(status)) ?? null;
    this.#render(db?.status ?? null);
  }

  /** The document could not be opened. */
  fail({ message }: Error): void {
    this.show(null);
    this.#say({ tone: 'bad', label: 'Not open', title: message });
  }

  toggleConnection(): void {
    const connection = this.#db?.status.connection;
    if (connection === 'offline') this.#db?.connect();
    else if (connection !== 'local') this.#db?.disconnect();
  }

  #render(status: Status | null): void {
    this.#say(indication(status));
    this.#pill.dataset.connection = status?.connection ?? 'opening';
    this.#pill.dataset.pending = String(status?.pending ?? 0);
    const isOffline = status?.connection === 'offline';
    this.#toggle.hidden = !status || status.connection === 'local';
    this.#toggle.textContent = isOffline ? 'Go online' : 'Go offline';
    this.#toggle.title = isOffline ? 'Go back to the server (o)' : 'Stay away from the server (o)';

    const error = status && alarming(status);
    this.#pill.dataset.error = status?.error?.code ?? '';
    this.#banner.hidden = !error;
    if (error) {
      this.#banner.dataset.testid = 'error';
      this.#banner.dataset.code = error.code;
      this.#banner.textContent = error.message;
    } else {
      delete this.#banner.dataset.testid;
    }
  }

  #say({ tone, label, title }: Indication): void {
    this.#pill.dataset.tone = tone;
    this.#pill.title = title;
    if (this.#label.textContent !== label) this.#label.textContent = label;
  }
}

/** What somebody has to do something about. A server that is away is not: that is being offline. */
export function alarming({ error }: Status): TidelogError | null {
  return error?.code === 'server-unreachable' ? null : error;
}

export function indication(status: Status | null): Indication {
  if (!status) return { tone: 'busy', label: 'Opening…', title: 'The document is being opened' };
  const waiting = count(status.pending, 'change');
  const error = alarming(status);
  if (error) return { tone: 'bad', label: 'Needs attention', title: error.message };
  if (status.storage === 'waiting') {
    return { tone: 'busy', label: 'Waiting for the disk', title: 'No tab lends its disk just now' };
  }
  switch (status.connection) {
    case 'local':
      return { tone: 'calm', label: 'On this device', title: 'There is no server to sync with' };
    case 'connecting':
      return { tone: 'busy', label: 'Connecting…', title: `${waiting} to be sent` };
    case 'offline':
      return {
        tone: 'away',
        label: status.pending ? `Offline · ${status.pending} waiting` : 'Offline',
        title: `${waiting} kept on this device and sent when the server is back`,
      };
    case 'online':
      return status.pending
        ? { tone: 'busy', label: `Syncing ${status.pending}`, title: `${waiting} on the way` }
        : { tone: 'calm', label: 'Synced', title: 'The server has everything' };
  }
}
