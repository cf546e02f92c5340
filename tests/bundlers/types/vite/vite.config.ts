// The plugin among those of each Vite that it is for.

import { tidelog } from 'tidelog/vite';
import * as newest from 'vite';
import * as vite5 from 'vite-5';
import * as vite6 from 'vite-6';
import * as vite7 from 'vite-7';

export const configs = [
  newest.defineConfig({ plugins: [tidelog()] }),
  vite5.defineConfig({ plugins: [tidelog()] }),
  vite6.defineConfig({ plugins: [tidelog()] }),
  vite7.defineConfig({ plugins: [tidelog()] }),
];
