"""Cases out, reports in: bundle, outbox, sync, feedback, ledger."""
