# A row remembers the 16 newest jobs, newest by position. Of 17, job a is forgotten by the row, though not by the worker that
# wrote it: its window makes the next delivery a duplicate.
drafts d1

epoch
0@0 t=1 a d1
0@1 t=2 b d1
0@2 t=3 c d1
0@3 t=4 d d1
0@4 t=5 e d1
0@5 t=6 f d1
0@6 t=7 g d1
0@7 t=8 h d1
0@8 t=9 i d1
0@9 t=10 j d1
0@10 t=11 k d1
0@11 t=12 l d1
0@12 t=13 m d1
0@13 t=14 n d1
0@14 t=15 o d1
0@15 t=16 p d1
epoch
0@16 t=17 q d1
epoch
0@17 t=1 a d1

# A record replayed from the dead letters passes the window by: the row decides. It knows job b, and job a no more, which is
# older than everything it remembers and pushes nothing out.
epoch
0@18 t=1 dlq.replays=1 a d1
0@19 t=2 dlq.replays=1 b d1
---
0@0 superseded
0@1 superseded
0@2 superseded
0@3 superseded
0@4 superseded
0@5 superseded
0@6 superseded
0@7 superseded
0@8 superseded
0@9 superseded
0@10 superseded
0@11 superseded
0@12 superseded
0@13 superseded
0@14 superseded
0@15 applied
0@16 applied
0@17 duplicate
0@18 superseded
0@19 duplicate

d1: images of 0@16, job q, t=17; remembers q p o n m l k j i h g f e d c b
deleted keys: d1
