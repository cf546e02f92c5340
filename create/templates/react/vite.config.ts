import react from '@vitejs/plugin-react';
import { tidelog } from 'tidelog/vite';
import { defineConfig } from 'vite';

export default defineConfig({ plugins: [react(), tidelog()] });
