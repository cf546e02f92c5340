// Notes what a page and its workers do, and when, and how much they write.
//
// Its text is put before every script (see `build.mjs`), so it can import nothing. What it notes is
// asked for by `recorded` in the page. Times are milliseconds since the epoch.

/** Notes what this page or worker does. */
export function record() {
  const DISK = ['read', 'write', 'flush'];
  const WORK = ['message', 'timer'];
  /** In so many turns of the microtasks behind a message everybody has gone on who waited for it:
   * what an app calls next is work of the tab as well. */
  const TURNS = 30;
  const clock = () => performance.timeOrigin + performance.now();
  const who = 'onconnect' in self ? 'core' : typeof document === 'undefined' ? 'worker' : 'tab';
  const spans = [{ what: 'script', from: performance.timeOrigin, to: clock() }];
  const counts = { writtenBytes: 0, zeroBytes: 0, flushes: 0, workMs: 0, diskMs: 0 };
  /** What the files are called that are open. */
  const names = new WeakMap();
  const note = (what, from) => {
    const to = clock();
    spans.push({ what, from, to });
    if (WORK.includes(what)) counts.workMs += to - from;
    if (DISK.includes(what.split(' ')[0])) counts.diskMs += to - from;
  };

  /** Puts a wrapper in the place of a function that may be absent. */
  const wrap = (object, name, wrapper) => {
    const original = object?.[name];
    if (original) object[name] = wrapper(original);
  };
  const waitFor = (label) => (original) =>
    function (...args) {
      const from = clock();
      const waiting = original.apply(this, args);
      const done = () => note(label(...args), from);
      waiting.then(done, done);
      return waiting;
    };
  const timed = (label, count) => (original) =>
    function (...args) {
      const from = clock();
      const result = original.apply(this, args);
      count?.(result, args);
      note(names.has(this) ? `${label} ${names.get(this)}` : label, from);
      return result;
    };
  const nameOf = (url) =>
    String(url?.url ?? url)
      .replace(/^.*\//, '')
      .replace(/-.{8}\./, '.');

  wrap(
    self,
    'fetch',
    waitFor((url) => `fetch ${nameOf(url)}`),
  );
  wrap(
    WebAssembly,
    'compileStreaming',
    waitFor(() => 'compile'),
  );
  wrap(
    WebAssembly,
    'instantiateStreaming',
    waitFor(() => 'compile and start'),
  );
  const { Instance } = WebAssembly;
  WebAssembly.Instance = new Proxy(Instance, {
    construct: (...args) => timed('start module')(Reflect.construct)(...args),
  });
  wrap(
    self.StorageManager?.prototype,
    'getDirectory',
    waitFor(() => 'find root'),
  );
  wrap(
    self.FileSystemDirectoryHandle?.prototype,
    'getFileHandle',
    waitFor(() => 'find file'),
  );
  const file = self.FileSystemFileHandle?.prototype;
  wrap(
    file,
    'createSyncAccessHandle',
    (original) =>
      async function (...args) {
        const from = clock();
        const handle = await original.apply(this, args);
        note('open file', from);
        names.set(handle, this.name);
        return handle;
      },
  );
  const handle = self.FileSystemSyncAccessHandle?.prototype;
  wrap(handle, 'read', timed('read'));
  wrap(
    handle,
    'write',
    timed('write', (bytes, [written]) => {
      const all = new Uint8Array(written.buffer ?? written, written.byteOffset, bytes);
      const last = all.findLastIndex((byte) => byte !== 0);
      counts.writtenBytes += last + 1;
      counts.zeroBytes += bytes - last - 1;
    }),
  );
  wrap(
    handle,
    'flush',
    timed('flush', () => {
      counts.flushes += 1;
    }),
  );
  wrap(
    self.LockManager?.prototype,
    'query',
    waitFor(() => 'look for locks'),
  );
  wrap(
    self.LockManager?.prototype,
    'request',
    (original) =>
      function (name, ...args) {
        const from = clock();
        const run = args.pop();
        const held = (lock) => {
          note(`lock ${name.split(/[:-]/).slice(0, 2).join(' ')}`, from);
          return run(lock);
        };
        return original.call(this, name, ...args, held);
      },
  );

  // What comes is worked on in one go, and by those who waited for it.
  const working = (label) => (handler) =>
    function (...args) {
      const from = clock();
      const settle = (turns) => {
        if (turns === 0) note(label, from);
        else queueMicrotask(() => settle(turns - 1));
      };
      queueMicrotask(() => settle(TURNS));
      return handler.apply(this, args);
    };
  const listening = (target) => {
    const property = Object.getOwnPropertyDescriptor(target, 'onmessage');
    if (!property?.set) return;
    Object.defineProperty(target, 'onmessage', {
      ...property,
      set(handler) {
        property.set.call(this, handler && working('message')(handler));
      },
    });
  };
  const heard = [self, MessagePort.prototype, self.Worker?.prototype, WebSocket.prototype];
  for (const target of heard) {
    if (target) listening(target);
  }
  wrap(
    self,
    'setTimeout',
    (original) =>
      (run, ...args) =>
        original.call(self, working('timer')(run), ...args),
  );
  for (const name of ['Worker', 'SharedWorker']) {
    const original = self[name];
    if (!original) continue;
    self[name] = new Proxy(original, {
      construct: (...args) => timed(`new ${name}`)(Reflect.construct)(...args),
    });
  }

  const channel = new BroadcastChannel('bench-record');
  channel.addEventListener('message', ({ data }) => {
    if (data !== 'tell') return;
    // What has been noted may be long, and so late.
    channel.postMessage('here');
    channel.postMessage({ who, spans, counts });
  });
  self.recorded = async () => {
    const all = [{ who, spans, counts }];
    let here = 1;
    const heard = ({ data }) => {
      if (data === 'here') here += 1;
      if (data.who) all.push(data);
    };
    channel.addEventListener('message', heard);
    channel.postMessage('tell');
    do await new Promise((resolve) => setTimeout(resolve, 500));
    while (all.length < here);
    channel.removeEventListener('message', heard);
    return structuredClone(all);
  };
}
