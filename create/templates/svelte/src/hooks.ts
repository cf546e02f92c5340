import { createHooks } from 'tidelog/svelte';
import { todos } from './todos';

export const { provide, useLive, useMutate, useStatus } = createHooks(todos);
