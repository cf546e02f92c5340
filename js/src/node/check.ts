/** Checks doctypes in Node with the engine itself: what it refuses there no browser opens. */

import { readFileSync } from 'node:fs';
import { Writer } from '../codec.js';
import { type DoctypeDefinition, flawOf, writeDoctype } from '../doctype.js';

/** What is used of `core.js`, which is compiled from crate `browser`. */
interface Engine {
  initSync(from: { module: WebAssembly.Module }): unknown;
  checkDoctype(doctype: Uint8Array): string | undefined;
}

let engine: Promise<Engine> | undefined;

async function load(): Promise<Engine> {
  const wasm = new URL('../wasm/', import.meta.url);
  const core: Engine = await import(new URL('core.js', wasm).href);
  core.initSync({ module: new WebAssembly.Module(readFileSync(new URL('core_bg.wasm', wasm))) });
  return core;
}

/** What is found out about a doctype. */
export interface Finding {
  /** What is wrong with it, as a tab would be told that opens a document of it. */
  readonly flaw: string | undefined;
  /** What will be wrong, once an argument is left out. */
  readonly hints: readonly string[];
}

/** Checks a doctype. */
export async function check(doctype: DoctypeDefinition): Promise<Finding> {
  engine ??= load();
  const { checkDoctype } = await engine;
  const w = new Writer();
  writeDoctype(w, doctype);
  return {
    flaw: checkDoctype(w.take()),
    hints: [...unused(doctype), ...drawn(doctype)],
  };
}

/** One line for each parameter that stands in no statement of its mutation. */
function unused({ name, mutations }: DoctypeDefinition): readonly string[] {
  return Object.entries(mutations).flatMap(([mutation, { params, sql }]) => {
    const used = sql.join('\n').matchAll(/[:@$]([\p{L}\p{N}_$]+)/gu);
    const names = new Set([...used].map(([, param]) => param));
    const left = Object.keys(params).filter((param) => !names.has(param));
    return left.map(
      (param) => `mutation ${mutation} of doctype ${name} does not use its parameter ${param}`,
    );
  });
}

/**
 * One line for each parameter of kind `uuid` of a mutation that inserts nothing: left out, it is
 * drawn, and whatever that was to change or delete is not found.
 */
function drawn({ name, mutations }: DoctypeDefinition): readonly string[] {
  return Object.entries(mutations).flatMap(([mutation, { params, sql }]) => {
    if (sql.some((it) => /\b(insert|replace)\b/i.test(it))) return [];
    const uuids = Object.keys(params).filter((param) => params[param] === 'uuid');
    return uuids.map(
      (param) =>
        `mutation ${mutation} of doctype ${name} inserts nothing, and its parameter ${param} is a` +
        ` 'uuid', which is drawn where it is left out: make it 'text', so that it is missed`,
    );
  });
}

/** The doctypes among what a module exports, each once. */
export function doctypesOf(exports: object): readonly DoctypeDefinition[] {
  return [...new Set(Object.values(exports))].filter((it) => !flawOf(it));
}
