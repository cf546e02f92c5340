/** When doctypes are checked while an app is developed. */

/** Milliseconds in which files that are saved together are taken for one change. */
const SAVED_MS = 50;

/** Checks soon after something was saved, one check at a time: each has a process of its own. */
export class Checks<Found> {
  readonly #look: () => Promise<Found>;
  readonly #tell: (found: Found) => void;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #isBusy = false;
  /** Whether something was saved since the check began: what that finds is old. */
  #isStale = false;

  /**
   * @param look finds what there is now.
   * @param tell is told what was found, unless something was saved meanwhile.
   */
  constructor(look: () => Promise<Found>, tell: (found: Found) => void) {
    this.#look = look;
    this.#tell = tell;
  }

  /** Something was saved. */
  saved(): void {
    this.#isStale = true;
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => void this.#check(), SAVED_MS);
  }

  async #check(): Promise<void> {
    if (this.#isBusy) return;
    this.#isBusy = true;
    try {
      while (this.#isStale) {
        this.#isStale = false;
        const found = await this.#look();
        if (!this.#isStale) this.#tell(found);
      }
    } finally {
      this.#isBusy = false;
    }
  }
}
