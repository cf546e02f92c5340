/** Checks doctypes in Node with the engine itself: what it refuses there no browser opens. */

import { readFileSync } from 'node:fs';
import { Writer } from '../codec.js';
import { type DoctypeDefinition, isDoctype, writeDoctype } from '../doctype.js';

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

/** What is wrong with a doctype, as a tab would be told that opens a document of it. */
export async function flawOf(doctype: DoctypeDefinition): Promise<string | undefined> {
  engine ??= load();
  const w = new Writer();
  writeDoctype(w, doctype);
  return (await engine).checkDoctype(w.take());
}

/** The doctypes among what a module exports, each once, under the name of its export. */
export function doctypesOf(exports: object): ReadonlyMap<string, DoctypeDefinition> {
  const found = new Map<string, DoctypeDefinition>();
  for (const [name, value] of Object.entries(exports)) {
    if (isDoctype(value) && ![...found.values()].includes(value)) found.set(name, value);
  }
  return found;
}
