/** What both workers need. */

/** Hands over large messages without copying them; small ones are copied faster. */
export function transferOf(bytes: Uint8Array<ArrayBuffer>): Transferable[] {
  return bytes.length > 65536 ? [bytes.buffer] : [];
}

/** Loads WebAssembly, compiling while it arrives wherever the server names its type. */
export async function compile(url: string | URL): Promise<WebAssembly.Module> {
  const response = await fetch(url);
  if (!response.ok) throw new Error(`${response.status} ${response.statusText}: ${url}`);
  return response.headers.get('content-type') === 'application/wasm'
    ? WebAssembly.compileStreaming(response)
    : WebAssembly.compile(await response.arrayBuffer());
}
