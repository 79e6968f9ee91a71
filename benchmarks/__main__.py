"""`python -m benchmarks`: see `benchmarks.cells`. Imports nothing else, since every worker imports this again."""

if __name__ == "__main__":
    from benchmarks.cells import main

    main()
