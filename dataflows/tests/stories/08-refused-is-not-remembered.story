# A refused event leaves no trace: the same job, sent again with other images, is judged anew. In one epoch too.
drafts d1 d2

epoch
0@0 t=1000 a d1 refused
epoch
0@1 t=1000 a d1

epoch
1@0 t=2000 b d2 refused
1@1 t=1000 b d2
---
0@0 rejected, database-refused: a constraint, 4 tries; dead letter of t=1000
0@1 applied
1@0 rejected, database-refused: a constraint, 4 tries; dead letter of t=2000
1@1 applied

d1: images of 0@1, job a, t=1000; remembers a
d2: images of 1@1, job b, t=1000; remembers b
deleted keys: d1 d2
