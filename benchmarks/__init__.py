"""Cost of SeENet beside its peers: `make bench`, `make bench-full` (docs/performance.md)."""
