/** What a mutation's caller holds in its hand. */

/** The server's verdict on a mutation that it applied. */
export interface Confirmation {
  /** The first storage LSN at which this device saw it. */
  readonly lsn: number;
}

/** A promise together with what settles it. Nobody has to listen to it. */
export class Settling<T> {
  /** The promise. */
  readonly promise: Promise<T>;
  /** Fulfils it, unless it is settled. */
  resolve!: (value: T) => void;
  /** Rejects it, unless it is settled. */
  reject!: (error: unknown) => void;

  constructor() {
    this.promise = new Promise((resolve, reject) => {
      this.resolve = resolve;
      this.reject = reject;
    });
    this.promise.catch(() => {});
  }
}

/** What becomes of a mutation. Awaiting it is awaiting {@link Receipt.durable}. */
export class Receipt implements PromiseLike<number> {
  /**
   * Resolves to the timeline LSN when the mutation is on this device's disk. Rejects with
   * `RejectedError` if it was rejected here: then nothing was recorded.
   */
  readonly durable: Promise<number>;
  /**
   * The server's verdict, however long that takes. Rejects with `RejectedError`. Nobody has to
   * listen to it.
   */
  readonly confirmed: Promise<Confirmation>;

  /** @internal */
  constructor(durable: Promise<number>, confirmed: Promise<Confirmation>) {
    this.durable = durable;
    this.confirmed = confirmed;
  }

  /** As of {@link Receipt.durable}. */
  // biome-ignore lint/suspicious/noThenProperty: a receipt is there to be awaited
  then<Resolved = number, Rejected = never>(
    onfulfilled?: ((lsn: number) => Resolved | PromiseLike<Resolved>) | null,
    onrejected?: ((error: unknown) => Rejected | PromiseLike<Rejected>) | null,
  ): Promise<Resolved | Rejected> {
    return this.durable.then(onfulfilled, onrejected);
  }
}
