// The page that most tests drive: the package, the doctypes, and a few words to say what happened
// in a form that can leave the page.

import * as tidelog from 'tidelog';
import * as doctypes from './doctypes.mjs';

const unhandled = [];
addEventListener('unhandledrejection', (event) => unhandled.push(String(event.reason)));

/** What an error says to code, or null where there is none. */
function described(error) {
  return {
    name: error?.constructor?.name,
    ours: error instanceof tidelog.TidelogError,
    code: error?.code,
    outcome: error?.outcome,
    message: error?.message,
    mutation: error?.mutation,
    reason: error?.reason,
  };
}

/**
 * How a call ended: `{ value }`, or `{ error }` as plain data. Also takes a function that throws.
 */
async function outcome(call) {
  try {
    const value = await (typeof call === 'function' ? call() : call);
    return { value: typeof value === 'bigint' ? Number(value) : value };
  } catch (error) {
    return { error: described(error) };
  }
}

function base64(bytes) {
  let text = '';
  for (let at = 0; at < bytes.length; at += 0x8000) {
    text += String.fromCharCode(...bytes.subarray(at, at + 0x8000));
  }
  return btoa(text);
}

/** A status as plain data. */
const statusOf = (db) => ({
  ...db.status,
  confirmedLsn: Number(db.status.confirmedLsn),
  error: db.status.error && described(db.status.error),
});

/** Resolves once the status, as plain data, is as wanted. */
function whenStatus(db, wanted, withinMs = 20_000) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => {
      stop();
      reject(new Error(`the status stayed ${JSON.stringify(statusOf(db))}`));
    }, withinMs);
    const look = () => {
      if (!wanted(statusOf(db))) return;
      clearTimeout(timer);
      queueMicrotask(() => stop());
      resolve(statusOf(db));
    };
    const stop = db.on('status', look);
    look();
  });
}

Object.assign(globalThis, {
  tidelog,
  doctypes,
  unhandled,
  described,
  outcome,
  base64,
  statusOf,
  whenStatus,
  /** Where a test keeps what its next step needs. */
  kept: {},
  ready: true,
});
