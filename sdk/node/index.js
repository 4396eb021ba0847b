export { deduplicate, Memory } from './lib/deduplicate.js';
export { Reject, Retry } from './lib/outcome.js';
export { serve } from './lib/serve.js';
export { stdio } from './lib/stdio.js';
