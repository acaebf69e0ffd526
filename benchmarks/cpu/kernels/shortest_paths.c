/* Dijkstra's shortest paths in a random graph with a binary heap. */
#include "kernel.h"

enum { NODES = 1500, DEGREE = 6, HEAP = NODES * DEGREE + 1 };
static struct edge { u32 target, cost; } edges[NODES][DEGREE];
static struct waiting { u64 distance; u32 node; } heap[HEAP];
static u64 distances[NODES];
static u32 waiting;

NOINLINE static void push(u64 distance, u32 node) {
    u32 at = waiting++;
    while (at && heap[(at - 1) / 2].distance > distance) {
        heap[at] = heap[(at - 1) / 2];
        at = (at - 1) / 2;
    }
    heap[at] = (struct waiting){distance, node};
}

NOINLINE static struct waiting pop(void) {
    struct waiting least = heap[0], moved = heap[--waiting];
    u32 at = 0, child;
    while ((child = 2 * at + 1) < waiting) {
        if (child + 1 < waiting && heap[child + 1].distance < heap[child].distance) child++;
        if (heap[child].distance >= moved.distance) break;
        heap[at] = heap[child];
        at = child;
    }
    heap[at] = moved;
    return least;
}

KERNEL(shortest_paths, 200) {
    u64 digest = 0;
    for (u32 i = 0; i < NODES; i++) {
        distances[i] = ~(u64)0;
        for (u32 k = 0; k < DEGREE; k++)
            edges[i][k] = (struct edge){random_word() % NODES, 1 + random_word() % 1000};
    }
    distances[0] = waiting = 0;
    push(0, 0);
    while (waiting) {
        struct waiting here = pop();
        if (here.distance > distances[here.node]) continue;
        for (u32 k = 0; k < DEGREE; k++) {
            struct edge *edge = &edges[here.node][k];
            if (here.distance + edge->cost < distances[edge->target]) {
                distances[edge->target] = here.distance + edge->cost;
                push(distances[edge->target], edge->target);
            }
        }
    }
    for (u32 i = 0; i < NODES; i++) digest = mixed(digest, distances[i]);
    return digest;
}
