"""The verb-pair matrix: what each verb of storage does to each other one, on the real servers.

For each ordered pair of verbs, in every situation that has both: the first is stopped before each of its statements and
before COMMIT, while the second runs until it ends or waits for the first; then the first goes on. Answers and contents
must be those of one of the two serial orders on the model, where verbs are atomic.

    python -m tests.storage.verb_pairs --database postgresql     the whole matrix, with its counts

- `situations`: starting states made by verbs of the port, and the acts that can happen in each.
- `contents`: a state of the model becomes one of the database; both are read into one form that can be compared.
- `orders`: what the model says about two acts, one after the other.
- `stops`: holds a process before a statement; tells when another one waits for it on the server.
- `arena`: two processes on one database. `matrix`: plays the cases and counts.
- `outbox`, `forgetting`: more verbs, with situations of their own.
- `mutants`: planted bugs, so that we know that the matrix would see some.

The verbs: `create` (by a client), `start` (by a worker), `claim`, `step`, `park`, `undo`, `finish` (an end, or set
aside), `deliver` (a commit that wakes a parent or cancels children), `cancel`, `retry`, `renew`, `reap`, `release`
(the port's `retire`: a worker gives back all it holds; `park` gives back one), `settle`; those of events: `accept`,
`route` (to its end, which is several transactions), `look`, `learn` (several, too), `expire`; those of the outbox:
`lease`, a settlement as `delivered`, `later`, `dead` or `give back`, `enqueue`, `requeue` (two transactions), `purge`;
and `prune`. Waits are stored, and events posted, by `step`, `park`, `undo` and `finish`. Where there are events, all
are led to their end before the contents are read: who was woken counts, and not by whom or how often.

Timers have no verb: a due time is what `park` leaves behind. `ctx.session` writes with the text of `step` and `park` in
a transaction that goes on, as the first process does here (see `arena`); what it does besides is in `test_session`.
SQLite has one writer at a time, so there is nothing to interleave.
"""
