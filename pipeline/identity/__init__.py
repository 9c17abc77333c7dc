"""What a result depends on, as hashes: the code that trains, which codes are equal, which versions of libraries ran."""
