import { expect, test } from 'vitest';
import { wordOnServer } from '../../src/document.js';
import { opened, Stage, saidOf, stands, types } from './stage.js';

const setConnected = (stage: Stage, handle: number, connected: boolean, now = 0): void => {
  const word = wordOnServer(connected, now);
  stage.step({ type: 'tell', kind: 'setConnected', message: { handle, word } });
};

test('who stays away from the server says so with the open', () => {
  const { stage, handle } = opened();
  setConnected(stage, handle, false);
  stage.survive();
  expect(saidOf(stage)).toBe(1);
});

test('what is said of the server counts on from what any tab has said', () => {
  const { stage, handle } = opened();
  stage.news({ handle, news: stands({ word: 7 }) });
  stage.comeBack().reopen({ word: 7 });
  expect(saidOf(stage)).toBe(7);
  for (const [connected, word] of [
    [false, 9],
    [true, 10],
    [true, 12],
    [false, 13],
  ] as const) {
    setConnected(stage, handle, connected);
    stage.comeBack().reopen({ word });
    expect(saidOf(stage)).toBe(word);
  }
});

test('a tab that has heard of no other says something later than what others said before', () => {
  const [here, elsewhere] = [opened(), opened()];
  for (let at = 1; at < 4; at += 1) setConnected(elsewhere.stage, elsewhere.handle, at === 2, at);
  elsewhere.stage.survive();
  setConnected(here.stage, here.handle, true, 4);
  here.stage.survive();
  expect(saidOf(here.stage)).toBeGreaterThan(saidOf(elsewhere.stage));
  // The clock may be set back after that.
  setConnected(here.stage, here.handle, false, 1);
  here.stage.survive();
  expect(saidOf(here.stage)).toBe(9);
});

test('a core that is there is told the word that the next one would be', () => {
  const { stage, handle } = opened();
  stage.news({ handle, news: stands({ word: 8 }) });
  setConnected(stage, handle, false, 3);
  expect(stage.posted('setConnected').at(-1)).toEqual({ handle, word: 9 });
  setConnected(stage, handle, true, 6);
  expect(stage.posted('setConnected').at(-1)).toEqual({ handle, word: 12 });
});

test('a status that was under way when the app spoke does not take its word back', () => {
  const { stage, handle } = opened();
  setConnected(stage, handle, false);
  stage.news({ handle, news: stands({ word: 0 }) });
  stage.survive();
  expect(saidOf(stage)).toBe(1);
});

test('a document that is being closed keeps nobody away from the server any more', () => {
  const { stage, handle } = opened();
  setConnected(stage, handle, false);
  stage.call('close', { handle });
  stage.survive();
  expect(saidOf(stage)).toBe(0);
});

test('a token is given before its document is open, as where a local one is handed over', () => {
  const stage = new Stage();
  const handle = stage.tab.newHandle();
  stage.call('open', { handle });
  stage.work();
  const news = { type: 'tokenWanted', question: 7 } as const;
  expect(types(stage.news({ handle, news }))).toEqual(['news']);
  stage.step({ type: 'tell', kind: 'token', message: { question: 7, token: 'secret' } });
  expect(stage.posted('token')).toEqual([{ question: 7, token: 'secret' }]);
});

test('a token is given to a core that has the document still to open anew', () => {
  const { stage } = opened();
  stage.survive();
  stage.step({ type: 'tell', kind: 'token', message: { question: 7, token: 'secret' } });
  expect(stage.posted('token')).toHaveLength(1);
});

test('nothing else is said of a document that is not open', () => {
  const stage = new Stage();
  const handle = stage.tab.newHandle();
  stage.call('open', { handle });
  stage.work();
  expect(stage.news({ handle, news: stands() })).toEqual([]);
  stage.step({ type: 'tell', kind: 'listenRejections', message: { handle } });
  expect(stage.posted('listenRejections')).toEqual([]);
});
