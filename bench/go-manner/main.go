// A Todo API in the manner of the Go service that million-rps replaces, to compare with and to move from and back to: gin
// routes, every read asks Redis for the ready list and keeps nothing itself, every write goes to Kafka without waiting for it
// and is answered with 202. What nothing here needs is left out, such as the fill of the list from a database. Its worker is
// in worker.go.
//
//	ADDRESS        where to listen, such as 127.0.0.1:8080
//	REDIS_ADDRESS  the Redis that holds todos:list:LIMIT and todos:list:all
//	KAFKA_BROKERS  host:port, several separated by commas; without it writes are answered with 503
//	KAFKA_TODO_TOPIC  the topic of the commands; todo-commands when not set
//	KAFKA_BALANCER    least-bytes scatters the commands of a todo over partitions; without it they stay together
//	JWT_SECRET     the key of the bearer tokens (HS256); without it everybody writes as "anonymous"
package main

import (
	"context"
	"encoding/json"
	"errors"
	"log"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/golang-jwt/jwt/v5"
	"github.com/google/uuid"
	"github.com/redis/go-redis/v9"
	"github.com/segmentio/kafka-go"
)

// command is what goes onto the log.
type command struct {
	Action      string    `json:"action"`
	ID          string    `json:"id"`
	Title       string    `json:"title,omitempty"`
	Description string    `json:"description,omitempty"`
	Completed   *bool     `json:"completed,omitempty"`
	UserID      string    `json:"user_id"`
	RequestedAt time.Time `json:"requested_at"`
}

type todoBody struct {
	Title       string `json:"title" binding:"required"`
	Description string `json:"description"`
}

type patchBody struct {
	Title       string `json:"title"`
	Description string `json:"description"`
	Completed   *bool  `json:"completed"`
}

type server struct {
	redis     *redis.Client
	kafka     *kafka.Writer
	jwtSecret []byte
}

func main() {
	if len(os.Args) > 1 && os.Args[1] == "worker" {
		work()
		return
	}
	s := &server{
		redis:     redis.NewClient(&redis.Options{Addr: os.Getenv("REDIS_ADDRESS"), PoolSize: 500}),
		kafka:     kafkaWriter(),
		jwtSecret: []byte(os.Getenv("JWT_SECRET")),
	}
	router := gin.New()
	router.Use(gin.Recovery())
	router.GET("/todos", s.list)
	router.POST("/todos", s.create)
	router.PUT("/todos/:id", s.update)
	router.DELETE("/todos/:id", s.delete)
	log.Fatal(router.Run(os.Getenv("ADDRESS")))
}

func kafkaWriter() *kafka.Writer {
	brokers := os.Getenv("KAFKA_BROKERS")
	if brokers == "" {
		return nil
	}
	topic := topicName()
	var balancer kafka.Balancer = &kafka.Hash{}
	if os.Getenv("KAFKA_BALANCER") == "least-bytes" {
		balancer = &kafka.LeastBytes{}
	}
	addresses := kafka.TCP(strings.Split(brokers, ",")...)
	createTopic(addresses, topic)
	return &kafka.Writer{
		Addr:         addresses,
		Topic:        topic,
		Balancer:     balancer,
		BatchTimeout: 10 * time.Millisecond,
		RequiredAcks: kafka.RequireOne,
		Async:        true,
	}
}

func topicName() string {
	if topic := os.Getenv("KAFKA_TODO_TOPIC"); topic != "" {
		return topic
	}
	return "todo-commands"
}

// createTopic makes the topic where it is missing: brokers need not do so by themselves.
func createTopic(addresses net.Addr, topic string) {
	client := &kafka.Client{Addr: addresses, Timeout: 30 * time.Second}
	config := kafka.TopicConfig{Topic: topic, NumPartitions: 16, ReplicationFactor: 1}
	answer, err := client.CreateTopics(context.Background(), &kafka.CreateTopicsRequest{Topics: []kafka.TopicConfig{config}})
	if err == nil {
		err = answer.Errors[topic]
	}
	if err != nil && !errors.Is(err, kafka.TopicAlreadyExists) {
		log.Fatalf("topic %s: %v", topic, err)
	}
}

// list answers with the bytes that Redis holds for this limit.
func (s *server) list(c *gin.Context) {
	limit := c.DefaultQuery("limit", "all")
	body, err := s.redis.Get(c.Request.Context(), "todos:list:"+limit).Bytes()
	if err != nil {
		c.JSON(http.StatusServiceUnavailable, gin.H{"error": err.Error()})
		return
	}
	// Without it net/http would send chunks, which cost more.
	c.Header("Content-Length", strconv.Itoa(len(body)))
	c.Data(http.StatusOK, "application/json", body)
}

func (s *server) create(c *gin.Context) {
	var body todoBody
	s.write(c, &body, func(string) command {
		return command{Action: "create", ID: uuid.NewString(), Title: body.Title, Description: body.Description}
	}, "Todo creation queued")
}

func (s *server) update(c *gin.Context) {
	var body patchBody
	s.write(c, &body, func(id string) command {
		return command{Action: "update", ID: id, Title: body.Title, Description: body.Description, Completed: body.Completed}
	}, "Todo update queued")
}

func (s *server) delete(c *gin.Context) {
	s.write(c, nil, func(id string) command { return command{Action: "delete", ID: id} }, "Todo deletion queued")
}

// write reads the body, if there is to be one, and hands the command over. It does not wait: what it answers says nothing
// about what Kafka has.
func (s *server) write(c *gin.Context, body any, asked func(id string) command, message string) {
	if s.kafka == nil {
		c.JSON(http.StatusServiceUnavailable, gin.H{"error": "KAFKA_BROKERS is not set"})
		return
	}
	user, err := s.user(c.GetHeader("Authorization"))
	if err != nil {
		c.JSON(http.StatusUnauthorized, gin.H{"error": err.Error()})
		return
	}
	if body != nil {
		if err := c.ShouldBindJSON(body); err != nil {
			c.JSON(http.StatusBadRequest, gin.H{"error": err.Error()})
			return
		}
	}
	made := asked(c.Param("id"))
	made.UserID, made.RequestedAt = user, time.Now().UTC()
	value, err := json.Marshal(made)
	if err != nil {
		c.JSON(http.StatusInternalServerError, gin.H{"error": err.Error()})
		return
	}
	if err := s.kafka.WriteMessages(c.Request.Context(), kafka.Message{Key: []byte(made.ID), Value: value}); err != nil {
		c.JSON(http.StatusServiceUnavailable, gin.H{"error": err.Error()})
		return
	}
	c.JSON(http.StatusAccepted, gin.H{"id": made.ID, "message": message})
}

// user is the subject of the bearer token.
func (s *server) user(authorization string) (string, error) {
	if len(s.jwtSecret) == 0 {
		return "anonymous", nil
	}
	text, isBearer := strings.CutPrefix(authorization, "Bearer ")
	if !isBearer {
		return "", errors.New("a bearer token is required")
	}
	key := func(*jwt.Token) (any, error) { return s.jwtSecret, nil }
	token, err := jwt.Parse(text, key, jwt.WithValidMethods([]string{"HS256"}))
	if err != nil {
		return "", err
	}
	return token.Claims.GetSubject()
}
