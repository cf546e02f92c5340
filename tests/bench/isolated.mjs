/** The headers of a page that is cross-origin isolated: it shares memory with its workers, and has
 * clocks of some microseconds, where others have them of up to a millisecond. */
export const ISOLATED = {
  'cross-origin-opener-policy': 'same-origin',
  'cross-origin-embedder-policy': 'require-corp',
};
