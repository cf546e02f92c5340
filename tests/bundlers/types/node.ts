// What a process gives to `tidelog/node`: this is compiled, and not run.

import { open as openInPage } from 'tidelog';
import { doctype, FolderInUseError, mutation, open, type SocketClass } from 'tidelog/node';

const list = doctype({
  name: 'list',
  migrations: [],
  mutations: { add: mutation({ id: 'uuid' }, 'select :id') },
});

export async function main(): Promise<void> {
  const webSocket: SocketClass = WebSocket;
  const folder = new URL('file:///var/lib/list');
  try {
    await using db = await open(list, { document: 'mine', folder, webSocket });
    const { id }: { readonly id: string } = db.mutate.add().args;
    console.log(id, db.status.storage === 'folder');
  } catch (error) {
    if (error instanceof FolderInUseError) console.log(error.code satisfies 'folder-in-use');
  }
  // @ts-expect-error: a page has no folders.
  await openInPage(list, { document: 'mine', folder });
  // @ts-expect-error: that is no class of connections.
  await open(list, { document: 'mine', webSocket: 'ws' });
}
