/** Runs modules of an app in Node, as its own development server would. */

/** What is used of Vite's development server; every version from 5 on has it. */
export interface Runner {
  ssrLoadModule(id: string): Promise<object>;
  close(): Promise<void>;
}

/** What of an app's configuration says where its modules are. */
export interface Place {
  readonly root: string;
  readonly mode?: string;
  readonly resolve?: object;
}

/** Starts one with the Vite that is imported by this name. It listens nowhere. */
export async function startRunner(vite: string, place: Place): Promise<Runner> {
  const { createServer } = await import(vite);
  return createServer({
    ...place,
    configFile: false,
    logLevel: 'silent',
    appType: 'custom',
    optimizeDeps: { noDiscovery: true, include: [] },
    server: { middlewareMode: true, hmr: false, ws: false, watch: null },
  });
}
