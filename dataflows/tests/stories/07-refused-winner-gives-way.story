# What the database refuses supersedes nothing: the next newest gets its turn.
drafts d1 d2 d3

epoch
0@0 t=1000 a d1
0@1 t=3000 b d1 refused
0@2 t=2000 c d1

# Two refusals, and nothing is left: the row and the key stay as they were.
1@0 t=1000 d d2 refused
1@1 t=2000 e d2 refused

# An event that is older anyway is never tried, so that the database has nothing to refuse.
2@0 t=1000 f d3 refused
2@1 t=2000 g d3
---
0@0 superseded
0@1 rejected, database-refused: a constraint, 4 tries; dead letter of t=3000
0@2 applied
1@0 rejected, database-refused: a constraint, 4 tries; dead letter of t=1000
1@1 rejected, database-refused: a constraint, 4 tries; dead letter of t=2000
2@0 superseded
2@1 applied

d1: images of 0@2, job c, t=2000; remembers c a
d2: as it was; remembers none
d3: images of 2@1, job g, t=2000; remembers g f
deleted keys: d1 d3
