import vue from '@vitejs/plugin-vue';
import { tidelog } from 'tidelog/vite';
import { defineConfig } from 'vite';

export default defineConfig({ plugins: [vue(), tidelog()] });
