import { createHooks } from 'tidelog/svelte';
import { notes } from '../notes.js';

export const { provide, useDocument, useLive, useMutate, useStatus } = createHooks(notes);
