// Vitest's browser mode, in whichever browser opens the address that it is given.

import { preview } from '@vitest/browser-preview';
import { tidelog } from 'tidelog/vite';
import { defineConfig } from 'vitest/config';

export default defineConfig({
  plugins: [tidelog()],
  test: {
    teardownTimeout: 1_000,
    browser: {
      enabled: true,
      // Vitest takes `CI` for a wish to be headless, and the preview opens nothing then.
      headless: false,
      provider: preview(),
      instances: [{ browser: 'chromium' }],
    },
  },
});
