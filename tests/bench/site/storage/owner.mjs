// One who asks a page server over a port, as a core does.

export class Owner {
  #port;
  #heard;

  constructor(port) {
    this.#port = port;
    port.onmessage = ({ data }) => this.#heard(data);
  }

  /** Resolves when the page server has its store open. */
  ready() {
    return this.ask(null, ({ type }) => type === 'ready');
  }

  /** Sends a message, if one is given, and calls `heard` with each that comes, until it answers
   * that this was all. */
  ask(message, heard) {
    if (message) this.#port.postMessage(message, [message.buffer]);
    return new Promise((resolve) => {
      this.#heard = (data) => {
        if (heard(data)) resolve(data);
      };
    });
  }
}
