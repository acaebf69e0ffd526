// Work for a JavaScript interpreter: objects, closures, strings, regular expressions, arrays, JSON, numbers.
var rounds = ROUNDS;
var seed = 42;
function random(limit) {
    seed = (seed * 16807) % 2147483647;
    return seed % limit;
}

function Shape(size) { this.size = size; }
Shape.prototype.area = function () { return this.size * this.size; };
function Disc(size) { Shape.call(this, size); }
Disc.prototype = Object.create(Shape.prototype);
Disc.prototype.area = function () { return Math.round(this.size * this.size * 3.140625); };

var tasks = {
    objects: function () {
        var sum = 0, shapes = [];
        for (var i = 0; i < 2000; i++) shapes.push(i % 3 ? new Shape(random(100)) : new Disc(random(100)));
        shapes.forEach(function (shape) { sum += shape.area(); });
        return sum;
    },
    sorting: function () {
        var items = [];
        for (var i = 0; i < 1000; i++) items.push({ key: random(500), position: i });
        items.sort(function (a, b) { return a.key - b.key || a.position - b.position; });
        return items[0].position + items[500].position;
    },
    text: function () {
        var words = [];
        for (var i = 0; i < 400; i++) words.push('w' + random(60).toString(3));
        var text = words.join(' ').replace(/w(1+)2/g, '<$1>');
        return text.length + text.split(/[ <>]+/).length;
    },
    json: function () {
        var value = { list: [], map: {} };
        for (var i = 0; i < 200; i++) {
            value.list.push({ id: i, name: 'name' + random(50), flags: [true, false, null] });
            value.map['k' + random(90)] = i / 8;
        }
        var again = JSON.parse(JSON.stringify(value));
        return again.list.length + Object.keys(again.map).length + JSON.stringify(again).length;
    },
    numbers: function () {
        var a = 0, x = 0.5;
        for (var i = 0; i < 20000; i++) {
            a = (a * 31 + (i ^ (a >>> 3))) & 0xffffff;
            x = 3.75 * x * (1 - x);
        }
        return a + Math.floor(x * 1000);
    }
};

var digest = 0;
for (var round = 0; round < rounds; round++)
    ['objects', 'sorting', 'text', 'json', 'numbers'].forEach(function (name) {
        digest = (digest * 33 + tasks[name]()) % 4294967291;
    });
print(digest);
