/** The connections of an engine, of whichever class there is in this process. */

import { setImmediate, setTimeout } from 'node:timers';
import type { Bytes } from '../codec.js';
import type { ToEngine } from './engine-messages.js';

/** What is used of a `WebSocket`. */
export interface Socket {
  binaryType: string;
  readonly readyState: number;
  onopen: ((event: never) => void) | null;
  onclose: ((event: never) => void) | null;
  onerror: ((event: never) => void) | null;
  onmessage: ((event: never) => void) | null;
  send(message: Bytes): void;
  close(): void;
  /** Of the class of package `ws`. */
  terminate?(): void;
}

/** A class of connections: that of a browser, or one that is used like it. */
export type SocketClass = new (url: string) => Socket;

const OPEN = 1;

/** How long a server may take to say goodbye to a connection that can be cut off. */
const GOODBYE_MS = 1_000;

/** The connections by the engine's numbers. */
export class Sockets {
  readonly #tell: (message: ToEngine) => void;
  readonly #open = new Map<number, Socket | undefined>();
  /** What Node has, since version 22. */
  socketClass: SocketClass | undefined = globalThis.WebSocket as SocketClass | undefined;

  constructor(tell: (message: ToEngine) => void) {
    this.#tell = tell;
  }

  open(number: number, url: string): void {
    const socket = this.#make(url);
    this.#open.set(number, socket);
    // The next engine counts its own from the beginning.
    const isOurs = (): boolean => this.#open.has(number) && this.#open.get(number) === socket;
    const closed = (): void => {
      if (!isOurs()) return;
      this.#open.delete(number);
      this.#tell({ type: 'socketClosed', socket: number });
    };
    if (!socket) {
      setImmediate(closed);
      return;
    }
    socket.binaryType = 'arraybuffer';
    socket.onopen = () => isOurs() && this.#tell({ type: 'socketOpened', socket: number });
    socket.onclose = closed;
    // It is closed behind that. In a class that emits events, nobody listening would be an error.
    socket.onerror = () => {};
    socket.onmessage = ({ data }: { readonly data: ArrayBuffer | Uint8Array | string }) => {
      if (!isOurs()) return;
      if (typeof data === 'string') socket.close();
      else this.#tell({ type: 'socketMessage', socket: number, message: new Uint8Array(data) });
    };
  }

  /** Undefined where the address is no good. */
  #make(url: string): Socket | undefined {
    try {
      return this.socketClass && new this.socketClass(url);
    } catch {
      return undefined;
    }
  }

  send(number: number, message: Bytes): void {
    const socket = this.#open.get(number);
    if (socket?.readyState === OPEN) socket.send(message);
  }

  close(number: number): void {
    const socket = this.#open.get(number);
    this.#open.delete(number);
    if (!socket) return;
    socket.close();
    // Or the process would wait for a server that is gone.
    setTimeout(() => socket.terminate?.(), GOODBYE_MS).unref();
  }

  closeAll(): void {
    for (const number of [...this.#open.keys()]) this.close(number);
  }
}
