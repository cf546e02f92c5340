// The worker that a tab lends for the bare way: writes what it is handed, and flushes it.

self.onmessage = async ({ data: name, ports: [core] }) => {
  const folder = await navigator.storage.getDirectory();
  const handle = await folder.getFileHandle(`bare-way-${name}`, { create: true });
  const file = await handle.createSyncAccessHandle();
  let end = file.getSize();
  core.onmessage = ({ data: [call, bytes] }) => {
    end += file.write(bytes, { at: end });
    file.flush();
    core.postMessage(call);
  };
};
