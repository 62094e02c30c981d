"""One request: what is asked, how its tokens are chosen, what comes out."""
