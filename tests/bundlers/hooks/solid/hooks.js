import { createHooks } from 'tidelog/solid';
import { notes } from '../notes.js';

export const { Provider, useDocument, useLive, useMutate, useStatus } = createHooks(notes);
