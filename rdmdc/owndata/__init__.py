"""Front door for people with a data set: audit it, condense it, hand the result on."""
