"""Each attack is carried out in a folder of its own: afterwards nothing is changed, run or shown outside it."""
