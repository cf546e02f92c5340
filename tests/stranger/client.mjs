// A client of one document, written from `crates/sync/PROTOCOL.md` and nothing else: a copy that is
// a SQLite file, and a timeline whose frames are in memory.
//
// Not here: views of what has no verdict yet. The copy is what the server has said.

import { randomBytes } from 'node:crypto';
import { closeSync, ftruncateSync, openSync, readFileSync, readSync, writeSync } from 'node:fs';
import WebSocket from 'ws';
import * as wire from './messages.mjs';

const CHANNEL = 7;
/** Before the first part of an entry, and before the first entry. */
const NO_HASH = Buffer.alloc(32);

/** The document as the server has said it: a file of pages, and the position behind them. */
export class Copy {
  #file;
  #parts = [];
  /** The hash of the last entry. */
  #last = null;
  #isAnew = false;
  /** What is held; null before the first entry. */
  position = null;
  /** Entries whose chain was recomputed. */
  chainsChecked = 0;
  /** The most parts in which one entry came. */
  partsMax = 0;
  /** How many pages came in each coding. */
  codings = { Whole: 0, Zeros: 0, Previous: 0 };

  constructor(file) {
    this.#file = file;
  }

  /** The next entry begins where `from` says: behind what is held, or anew. */
  follow(from) {
    this.#parts = [];
    this.#last = null;
    this.#isAnew = from !== (this.position?.next ?? 1);
  }

  /** Takes a part of an entry. Says whether the entry was applied; throws if it does not fit. */
  take(message) {
    const { start, end, position, dbPages, hash } = message;
    const before = this.#parts.at(-1)?.hash ?? NO_HASH;
    const isRepeat = this.#parts.length > 0 ? hash.equals(before) : this.#last?.equals(hash);
    if (isRepeat) return false;
    if (message.isPredicted) throw new Error('nothing was predicted');
    const sent = message.pages.map((page) => ({
      pgid: page.pgid,
      bytes: wire.decodePage(page, () => this.#read(page.pgid)),
    }));
    for (const { type } of message.pages) this.codings[type] += 1;
    const part = { ...message, pages: sent };
    if (!wire.partHash(before, sent, dbPages).equals(hash)) throw new Error('a garbled part');
    this.#parts.push(part);
    if (!part.isLast) return false;
    const all = this.#parts.flatMap(({ pages }) => pages);
    this.partsMax = Math.max(this.partsMax, this.#parts.length);
    this.#parts = [];
    this.#last = hash;
    const held = this.#isAnew ? null : this.position;
    const expected = held?.next ?? 1;
    if (end <= expected) return false;
    if (start !== expected) throw new Error(`${start}..${end} came where ${expected} was wanted`);
    const latest = new Map(all.map((page) => [page.pgid, page]));
    const pages = [...latest.values()]
      .filter(({ pgid }) => pgid <= dbPages)
      .sort((a, b) => a.pgid - b.pgid);
    if (end === start + 1) {
      const entryHash = wire.entryHash(pages, dbPages);
      const chain = wire.chainAfter(held?.chain ?? NO_HASH, end, entryHash);
      if (!chain.equals(position.chain)) throw new Error(`${start}..${end} is off its chain`);
      this.chainsChecked += 1;
    }
    this.#write(pages, dbPages, held === null);
    this.position = position;
    this.#isAnew = false;
    return true;
  }

  #read(pgid) {
    const file = openSync(this.#file, 'r');
    const bytes = Buffer.alloc(wire.PAGE_SIZE);
    const size = readSync(file, bytes, 0, bytes.length, (pgid - 1) * wire.PAGE_SIZE);
    closeSync(file);
    if (size !== bytes.length) throw new Error(`page ${pgid} is not there`);
    return bytes;
  }

  #write(pages, dbPages, isWhole) {
    const file = openSync(this.#file, isWhole ? 'w+' : 'r+');
    ftruncateSync(file, dbPages * wire.PAGE_SIZE);
    for (const { pgid, bytes } of pages) {
      writeSync(file, bytes, 0, bytes.length, (pgid - 1) * wire.PAGE_SIZE);
    }
    closeSync(file);
  }

  /** The file's bytes. */
  bytes = () => new Uint8Array(readFileSync(this.#file));
}

/** Follows one document and issues mutations for it, over one connection at a time. */
export class Stranger {
  secret = randomBytes(16);
  timeline = randomBytes(16);
  life = randomBytes(16);
  copy;
  /** Frames of the timeline, from LSN 1 on. */
  frames = [];
  /** Everything before this is at the server. */
  acked = 1;
  /** The rejections before this are known here. */
  kept = 1;
  /** All that was said and is no entry, oldest first. */
  said = [];
  #document;
  #doctype;
  #socket = null;
  /** Whether what it says is compressed. */
  compresses = false;
  #isOpen = false;
  #failure = null;
  #watchers = new Set();

  constructor({ document, doctype, file }) {
    this.#document = document;
    this.#doctype = wire.doctype(doctype);
    this.copy = new Copy(file);
  }

  /** Opens a socket without a word. */
  async connect(address) {
    this.said = [];
    this.#isOpen = false;
    const socket = new WebSocket(`${address}/v1/sync`);
    this.#socket = socket;
    socket.binaryType = 'nodebuffer';
    socket.on('message', (bytes, isBinary) => {
      if (socket !== this.#socket) return;
      try {
        if (!isBinary) throw new Error('a text message');
        this.#take(wire.decode(bytes));
      } catch (error) {
        this.#failure = error;
        socket.close();
      }
      this.#look();
    });
    socket.on('close', () => {
      if (socket !== this.#socket) return;
      this.#isOpen = false;
      this.said.push({ type: 'closed' });
      this.#look();
    });
    await new Promise((resolve, reject) => {
      socket.once('open', resolve);
      socket.once('error', reject);
    });
    socket.on('error', () => {});
    return this;
  }

  send(bytes) {
    this.#socket.send(this.compresses ? wire.inLiterals(bytes) : bytes);
  }

  /** Hello, and the document: the server has said where it stands when this resolves. */
  async start(address) {
    await this.connect(address);
    this.send(wire.hello(wire.clientOf(this.secret)));
    await this.hears('Welcome');
    this.open();
    await this.hears('Opened');
    return this;
  }

  open(options = {}) {
    this.send(
      wire.open(CHANNEL, {
        document: this.#document,
        doctype: this.#doctype,
        timeline: this.timeline,
        secret: this.secret,
        have: this.copy.position,
        ...options,
      }),
    );
  }

  /** Issues a mutation: gives its LSN. It is sent at once if the server has said what it wants. */
  mutate(name, args, movedFrom = null) {
    this.frames.push({
      call: randomBytes(16),
      mutation: wire.mutation({
        doctype: this.#doctype,
        name,
        args,
        now: Date.now(),
        client: wire.clientOf(this.secret),
        kept: this.kept,
        movedFrom,
      }),
    });
    const lsn = this.frames.length;
    if (this.#isOpen) this.sendFrames(lsn);
    return lsn;
  }

  /** Sends the timeline from an LSN on. */
  sendFrames(first, list = this.frames.slice(first - 1)) {
    this.send(wire.frames(CHANNEL, this.life, first, list));
  }

  /** Everything that was issued is at the server, and all that the server has is here. */
  async sync(question = this.said.length) {
    this.send(wire.probe(CHANNEL, question));
    const isAnswer = ({ type, question: echoed }) => type === 'Probed' && echoed === question;
    const { next } = await this.until('Probed', () => this.said.find(isAnswer));
    await this.until(`entries before ${next}`, () => this.copy.position?.next >= next);
    await this.until('all frames to be acknowledged', () => this.acked > this.frames.length);
  }

  /** Waits for a message of that type, and gives it. */
  hears(type) {
    return this.until(type, () => this.said.find((message) => message.type === type));
  }

  until(what, ask) {
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        const said = JSON.stringify(
          this.said.map(({ type, refusal, reason }) => ({ type, refusal, reason })),
        );
        reject(new Error(`${what} did not come; said was: ${said}`));
      }, 20_000);
      const watcher = () => {
        const answer = this.#failure === null && ask();
        if (!answer && this.#failure === null) return;
        this.#watchers.delete(watcher);
        clearTimeout(timer);
        if (this.#failure) reject(this.#failure);
        else resolve(answer);
      };
      this.#watchers.add(watcher);
      watcher();
    });
  }

  #look() {
    for (const watcher of [...this.#watchers]) watcher();
  }

  #take(message) {
    const said = message.type === 'About' ? message.body : message;
    if (said.type === 'Entry') {
      if (this.copy.take(said)) this.send(wire.received(CHANNEL, this.copy.position.next));
      return;
    }
    if (said.type === 'Opened') this.#opened(said);
    if (said.type === 'Acked') this.acked = Math.max(this.acked, said.next);
    if (said.type === 'Refused') this.#isOpen = false;
    this.said.push(said);
  }

  #opened({ from, wanted }) {
    this.copy.follow(from);
    this.acked = Math.max(this.acked, wanted);
    this.#isOpen = true;
    if (this.frames.length >= wanted) this.sendFrames(wanted);
  }

  /** Ends the connection, as a network does. */
  cut() {
    this.#isOpen = false;
    this.#socket?.terminate();
  }
}

/** Where a local document stands that was written in one go, by one life. */
export function localPosition(pages, dbPages) {
  const [journal, life, next] = [randomBytes(16), randomBytes(16), 2];
  const chain = wire.chainAfter(NO_HASH, next, wire.entryHash(pages, dbPages));
  return { position: { journal, life, next, chain }, dbPages };
}

export { CHANNEL };
