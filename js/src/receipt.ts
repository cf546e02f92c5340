/** What a mutation's caller holds in its hand. */

import type { TidelogError } from './errors.js';

/** A mutation is on this device's disk. */
export interface Durability {
  /** Its timeline LSN; in a local document its storage LSN. */
  readonly lsn: number;
}

/** The server's verdict on a mutation that it applied. */
export interface Confirmation {
  /**
   * The first storage LSN at which this device saw it. Where the engine died meanwhile and was
   * asked again, a later one.
   */
  readonly lsn: number;
}

/**
 * What becomes of a mutation: awaiting it is awaiting {@link Receipt.durable}.
 *
 * @example
 * ```ts
 * const receipt = db.mutate.add({ title: 'milk' });
 * await receipt; // on this device's disk, under receipt.args.id
 * receipt.confirmed.then(
 *   () => console.log('everybody has it'),
 *   (error) => error instanceof RejectedError && console.warn(error.reason),
 * );
 * ```
 */
export interface Receipt<Args = Readonly<Record<string, unknown>>> extends Promise<Durability> {
  /** The arguments that it was issued with, those among them that the tab filled in. */
  readonly args: Args;
  /**
   * The receipt itself: resolves when the mutation is on this device's disk. Rejects with
   * `RejectedError` if it was rejected here: then nothing was recorded. Like any promise, it is an
   * unhandled rejection if nobody listens, neither to it nor to `confirmed`.
   */
  readonly durable: this;
  /**
   * The server's verdict, however long that takes. Rejects with `RejectedError`. Nobody has to
   * listen to it.
   */
  readonly confirmed: Promise<Confirmation>;
}

/** A receipt together with what settles it. */
export interface Issued {
  readonly receipt: Receipt;
  /** Whether anybody has asked for the verdict. */
  isAwaited(): boolean;
  durable(durability: Durability): void;
  confirmed(confirmation: Confirmation): void;
  /** It is not durable; with `last` it has no verdict either. */
  failed(error: TidelogError, last: boolean): void;
}

/** A receipt of a mutation that is being issued with these arguments. */
export function issue(args: () => Readonly<Record<string, unknown>>): Issued {
  const durable = settling<Durability>();
  const confirmed = settling<Confirmation>();
  confirmed.promise.catch(() => {});
  let isAwaited = false;
  const receipt = durable.promise as Receipt;
  Object.defineProperties(receipt, {
    args: { get: args },
    durable: { value: receipt },
    confirmed: {
      get() {
        // Who asks for the verdict hears of any failure by it.
        durable.promise.catch(() => {});
        isAwaited = true;
        return confirmed.promise;
      },
    },
  });
  return {
    receipt,
    isAwaited: () => isAwaited,
    durable: durable.resolve,
    confirmed: confirmed.resolve,
    failed(error, last) {
      durable.reject(error);
      if (last) confirmed.reject(error);
    },
  };
}

interface Settling<T> {
  readonly promise: Promise<T>;
  /** Fulfils it, unless it is settled. */
  resolve(value: T): void;
  /** Rejects it, unless it is settled. */
  reject(error: unknown): void;
}

function settling<T>(): Settling<T> {
  let settle: Omit<Settling<T>, 'promise'> | undefined;
  const promise = new Promise<T>((resolve, reject) => {
    settle = { resolve, reject };
  });
  return { promise, ...settle! };
}
