// The current route, kept in step with the address bar.
import { parseRoute, type Route } from './route';

const read = (): Route => parseRoute(location.pathname, location.search, location.hash);
let current = $state.raw<Route>(read());

addEventListener('popstate', () => (current = read()));
addEventListener('hashchange', () => (current = read()));

export const router = {
  get route(): Route {
    return current;
  },
  /** Goes to a path of this app without loading it again. `replace` leaves no trace in the history. */
  go(href: string, replace = false): void {
    if (replace) history.replaceState(null, '', href);
    else history.pushState(null, '', href);
    current = read();
  },
};
