// Messages, doctypes and mutations as `crates/sync/PROTOCOL.md` draws them.

import { blake3 } from '@noble/hashes/blake3.js';
import { Reader, Writer } from './bytes.mjs';
import { decompress, literals } from './lz4.mjs';

export const VERSION = 1;
const COMPRESSED = 0x8000;
/** Of a body that is compressed, so much is a block by itself. */
const PIECE_SIZE = 61_440;
export const PAGE_SIZE = 4096;

/** BLAKE3 of all that is given, one after another. */
export const hash = (...parts) => Buffer.from(blake3(Buffer.concat(parts)));

/** What others may know of a life. */
export const publicLife = (life) => hash(life).subarray(0, 16);

/** The copy whose secret this is, as everybody may know it. */
export const clientOf = (secret) => hash(secret).subarray(0, 16);

const u32 = (value) => new Writer().fixed(4, value).done();
const u64 = (value) => new Writer().fixed(8, value).done();

// --- what a client says ---------------------------------------------------------------------

const message = () => new Writer().fixed(2, VERSION);
const about = (channel, number) => message().u32(2).u32(channel).u32(number);

function position(w, { journal, life, next, chain }) {
  w.bytes(journal).bytes(life).u64(next).bytes(chain);
}

function lives(w, list) {
  w.list(list, ({ life, first }) => w.bytes(life).u64(first));
}

export function hello(client, token = null) {
  const w = message().u32(0).bytes(client);
  return w.optional(token, w.text).done();
}

export const ping = () => message().u32(1).done();

/**
 * `offered`: the lives of a local document that is to become the server's. By the hash of the
 * doctype where that is given, `named`.
 */
export function open(channel, { document, doctype, timeline, secret, ...rest }) {
  const { have = null, offered = null, named = null } = rest;
  const w = about(channel, 0).text(document);
  if (named) w.u32(0).bytes(named);
  else w.u32(1).blob(doctype);
  w.bytes(timeline).bytes(secret);
  w.optional(have, (held) => position(w, held));
  if (offered) lives(w.u32(1), offered);
  else w.u32(0);
  return w.done();
}

export function frames(channel, life, first, list) {
  const w = about(channel, 1).bytes(life).u64(first);
  const frame = ({ call, mutation }) => w.bytes(call).blob(mutation).bool(false);
  return w.list(list, frame).done();
}

export function seed(channel, at, pages, last) {
  const w = about(channel, 2);
  position(w, at.position);
  w.u32(at.dbPages);
  w.list(pages, ({ pgid, bytes }) => w.u32(pgid).u32(0).blob(bytes));
  return w.bool(last).done();
}

export const received = (channel, next) => about(channel, 3).u64(next).done();
export const probe = (channel, question) => about(channel, 4).u32(question).done();
export const close = (channel) => about(channel, 5).done();

export function register(channel, tag, kinds, { instance = 0, concurrency = 1 } = {}) {
  const w = about(channel, 7).u32(tag).u64(instance);
  w.list(kinds, ([aggregate, command]) => w.text(aggregate).text(command));
  return w.u32(concurrency).done();
}

/**
 * Of a command `events` of its stream as `[type, data]`, and `snapshot`, what those before come to,
 * as `[name, state]`; of a run what it remembers, `records` as
 * `[name, choice, ...fields]`, and then waits, or what it returns; or why it has failed for good.
 */
export function complete(channel, tag, number, completion) {
  const { task, attempt, position = 0, events, records, result, reason } = completion;
  const { snapshot = null } = completion;
  const w = new Writer().u64(task).u64(attempt).u64(position);
  if (events) {
    w.u32(0).list(events, ([type, data]) => w.text(type).text(JSON.stringify(data)));
    w.list([], () => {}).list([], () => {});
    w.optional(snapshot, (texts) => texts.reduce((to, text) => to.text(text), w));
  } else if (records) {
    w.u32(2).list(records, ([name, choice, ...fields]) => {
      w.text(name).u32(0).u32(choice);
      for (const field of fields) typeof field === 'number' ? w.u64(field) : w.text(field);
    });
    w.bool(true);
  } else if (result) {
    w.u32(3).text(result);
  } else {
    w.u32(1).text(reason).bool(true);
  }
  return about(channel, 9).u32(tag).u32(number).blob(w.done()).done();
}

// --- what a server says ---------------------------------------------------------------------

/** Version and body of a message, which may be compressed. */
function opened(bytes) {
  const r = new Reader(bytes);
  const version = r.fixed(2);
  if (version < COMPRESSED) return { version, body: bytes.subarray(2) };
  compressedMessages += 1;
  const pieces = [];
  for (let left = r.fixed(4); left > 0; left -= PIECE_SIZE) {
    pieces.push(decompress(r.bytes(r.fixed(2)), Math.min(left, PIECE_SIZE)));
  }
  r.end();
  return { version: version - COMPRESSED, body: Buffer.concat(pieces) };
}

let compressedMessages = 0;

/** How many messages have come compressed. */
export const compressedCount = () => compressedMessages;

/** The same message, compressed as little as there is: in literals alone. */
export function inLiterals(bytes) {
  const body = bytes.subarray(2);
  const w = new Writer().fixed(2, VERSION + COMPRESSED).fixed(4, body.length);
  for (let at = 0; at < body.length; at += PIECE_SIZE) {
    const block = literals(body.subarray(at, at + PIECE_SIZE));
    w.fixed(2, block.length).bytes(block);
  }
  return w.done();
}

/** The message in the bytes: what it says of a document is under `body`. */
export function decode(bytes) {
  const { version, body: content } = opened(bytes);
  if (version !== VERSION) throw new Error(`the server speaks version ${version}`);
  const r = new Reader(content);
  const said = r.choice([
    ['Welcome'],
    ['Pong'],
    ['Bye', () => ({ reason: byeReason(r) })],
    ['About', () => ({ channel: r.u32(), body: body(r) })],
    ['Admitted', () => ({ subject: r.text(), secondsLeft: r.u64() })],
    ['NotRenewed'],
  ]);
  r.end();
  return said;
}

const withReason = (r) => () => ({ reason: r.text() });

const byeReason = (r) =>
  r.choice([
    ['Version'],
    ['Shutdown'],
    ['Unauthenticated'],
    ['Protocol', withReason(r)],
    ['Slow'],
    ['Origin'],
  ]);

const body = (r) =>
  r.choice([
    [
      'Opened',
      () => ({ storage: readPosition(r), from: r.lsn(), wanted: r.lsn(), lives: readLives(r) }),
    ],
    ['SeedWanted'],
    ['Seeded', () => ({ position: readPosition(r) })],
    ['Entry', () => entryPart(r)],
    ['Acked', () => ({ next: r.lsn() })],
    ['Undecided', () => ({ lsn: r.lsn(), why: undecidedReason(r) })],
    ['Probed', () => ({ question: r.u32(), next: r.lsn() })],
    ['Refused', () => ({ refusal: refusal(r) })],
    ['SeedTaken', () => ({ pagesCount: r.u32() })],
    ['Allowed', () => ({ role: r.u32() })],
    ['Forbidden', () => ({ lsn: r.lsn() })],
    [
      'Presence',
      () => {
        throw new Error('nobody is present here');
      },
    ],
    ['Registered', () => ({ tag: r.u32(), instance: r.u64() })],
    ['NotRegistered', () => ({ tag: r.u32(), reason: r.text() })],
    [
      'Completed',
      () => ({
        tag: r.u32(),
        number: r.u32(),
        answer: r.choice([['Done'], ['Late'], ['Stale']]).type,
        time: r.u64(),
      }),
    ],
    [
      'Archived',
      () => ({
        number: r.u32(),
        answer: r.choice([
          ['Events', () => ({ events: r.list(() => archivedEvent(r)), upTo: r.u64() })],
          ['Elsewhere'],
          ['Failed', withReason(r)],
        ]),
      }),
    ],
  ]);

const archivedEvent = (r) => ({
  sequence: r.u64(),
  aggregate: r.text(),
  stream: r.text(),
  position: r.u64(),
  name: r.text(),
  version: r.u32(),
  data: r.optional(() => r.text()),
  time: r.i64(),
  user: r.text(),
  client: r.text(),
  cause: r.text(),
});

const readPosition = (r) => ({ journal: r.id(), life: r.id(), next: r.lsn(), chain: r.hash() });
const readLives = (r) => r.list(() => ({ life: r.id(), first: r.lsn() }));

const entryPart = (r) => ({
  start: r.lsn(),
  end: r.lsn(),
  position: readPosition(r),
  dbPages: r.u32(),
  origin: r.optional(() => ({ timeline: r.id(), life: r.id(), lsn: r.lsn() })),
  pages: r.list(() => page(r)),
  isPredicted: r.bool(),
  hash: r.hash(),
  isLast: r.bool(),
});

function page(r) {
  const pgid = r.u32();
  const coded = r.choice([
    ['Whole', () => ({ bytes: r.blob() })],
    ['Zeros', () => ({ difference: r.blob() })],
    ['Previous', () => ({ difference: r.blob() })],
  ]);
  if (coded.bytes && coded.bytes.length !== PAGE_SIZE) throw new Error('a page of another size');
  return { pgid, ...coded };
}

/** A page's bytes, by those of the version before it. */
export function decodePage({ type, bytes, difference }, previous) {
  if (type === 'Whole') return bytes;
  const page = Buffer.alloc(PAGE_SIZE);
  if (type === 'Previous') previous().copy(page);
  const base = Buffer.from(page);
  let [at, end] = [0, 0];
  const number = () => {
    const low = difference[at++];
    return low < 128 ? low : (low & 127) + difference[at++] * 128;
  };
  while (at < difference.length) {
    const start = end + number();
    const twice = number();
    const size = Math.floor(twice / 2);
    end = start + size;
    if (!(end <= PAGE_SIZE)) throw new Error('no difference');
    if (twice % 2 === 0) {
      if (!(at + size <= difference.length)) throw new Error('no difference');
      difference.copy(page, start, at, at + size);
      at += size;
    } else {
      const far = number();
      const by = Math.floor(far / 2);
      const from = far % 2 === 0 ? start - by : start + by;
      if (!(from >= 0 && from + size <= PAGE_SIZE)) throw new Error('no difference');
      base.copy(page, start, from, from + size);
    }
  }
  return page;
}

const undecidedReason = (r) =>
  r.choice([
    ['UnknownDoctype', withReason(r)],
    ['NoRoomForVerdict', withReason(r)],
    ['VerdictFailed', withReason(r)],
  ]);

const refusal = (r) =>
  r.choice([
    ['Missing'],
    ['Exists'],
    ['DoctypeMismatch', withReason(r)],
    ['DoctypeInvalid', withReason(r)],
    ['Access', withReason(r)],
    ['Protocol', withReason(r)],
    ['Storage', withReason(r)],
    ['Parted'],
    ['Damaged'],
    ['DoctypeWanted'],
  ]);

// --- doctypes and mutations -----------------------------------------------------------------

const KINDS = ['text', 'integer', 'real', 'blob', 'boolean', 'json', 'uuid'];

/** A doctype's bytes. A kind that ends in `?` may be left out. */
export function doctype({ name, migrations, mutations, streams = {}, workflows = {} }) {
  const w = new Writer().text(name);
  w.list(migrations, (sql) => w.text(sql));
  const named = (members, write) =>
    w.list(
      Object.entries(members).sort(([a], [b]) => Buffer.compare(utf8(a), utf8(b))),
      ([name, member]) => write(member, w.text(name)),
    );
  const params = (params) =>
    w.list(Object.entries(params), ([name, kind]) => {
      w.text(name).u32(KINDS.indexOf(kind.replace('?', '')));
      w.bool(kind.endsWith('?'));
    });
  const texts = (texts) => w.list(texts, (text) => w.text(text));
  named(mutations, (mutation) => {
    params(mutation.params);
    texts(mutation.sql);
  });
  named(streams, ({ commands = {}, ...events }) => {
    named(events, ({ fields, upcasts = [], project = [] }) => {
      params(fields);
      texts(upcasts);
      texts(project);
    });
    named(commands, ({ fields, received = [], failed = [], retries = 0, timeout = 0 }) => {
      params(fields);
      texts(received);
      texts(failed);
      w.u32(retries).u32(timeout);
    });
  });
  named(workflows, ({ version, fields }) => {
    w.u32(version);
    params(fields);
  });
  return w.done();
}

const utf8 = (text) => Buffer.from(text);

/** A frame's body. */
export function mutation({ doctype, name, args, now, client, user = '', ...rest }) {
  const { kept = 1, movedFrom = null } = rest;
  const w = new Writer().bytes(hash(doctype)).text(name);
  w.list(Object.entries(args), ([name, value]) => writeValue(w.text(name), value));
  w.u64(now).bytes(client).text(user).u64(kept);
  const entry = ({ timeline, life, lsn }) => w.bytes(timeline).bytes(life).u64(lsn);
  return w.optional(movedFrom, entry).done();
}

function writeValue(w, value) {
  if (value === null) w.u32(0);
  else if (typeof value === 'boolean') w.u32(1).i64(value ? 1 : 0);
  else if (Number.isInteger(value)) w.u32(1).i64(value);
  else if (typeof value === 'number') w.u32(2).f64(value);
  else if (typeof value === 'string') w.u32(3).text(value);
  else w.u32(4).blob(value);
}

// --- hashes ---------------------------------------------------------------------------------

/** The hash of an entry up to a part with these pages in this order. */
export const partHash = (before, pages, dbPages) =>
  hash(before, ...pages.flatMap(({ pgid, bytes }) => [u32(pgid), hash(bytes)]), u32(dbPages));

/** The same of an entry in one part. */
export const entryHash = (pages, dbPages) => partHash(Buffer.alloc(32), pages, dbPages);

/** The chain behind an entry whose range ends there. */
export const chainAfter = (before, end, ofEntry) => hash(before, u64(end), ofEntry);
