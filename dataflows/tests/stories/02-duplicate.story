# A job that has reached its row is a duplicate from then on, even if it comes with other images and a later time.
# Its key is deleted all the same: the run before may have stopped between COMMIT and DEL.
drafts d1 d2

epoch
0@0 t=1000 a d1
epoch
0@1 t=1000 a d1
epoch
0@2 t=5000 a d1

# In one epoch as well, and in whatever order it comes to the workers: the first delivery of a partition counts.
epoch
1@0 t=1000 b d2
1@1 t=5000 b d2
1@2 t=500 b d2
---
0@0 applied
0@1 duplicate
0@2 duplicate
1@0 applied
1@1 duplicate
1@2 duplicate

d1: images of 0@0, job a, t=1000; remembers a
d2: images of 1@0, job b, t=1000; remembers b
deleted keys: d1 d2
