import { createHooks } from 'tidelog/react';
import { notes } from '../notes.js';

export const { Provider, useDocument, useLive, useMutate, useStatus, useSuspenseLive } =
  createHooks(notes);
