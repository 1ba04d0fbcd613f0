"""What SeENet costs beside what users would pick instead: `make bench`, `make bench-full` (docs/performance.md)."""
