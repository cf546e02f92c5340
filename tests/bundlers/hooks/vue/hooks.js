import { createHooks } from 'tidelog/vue';
import { notes } from '../notes.js';

export const { Provider, useDocument, useLive, useMutate, useStatus } = createHooks(notes);
